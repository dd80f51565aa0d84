"""What things are good for: affordances and the many ways to ask for them.

Each affordance covers a set of categories; *doubtful* ones keep the phrase from being used while
such a thing is in view, as for names (:mod:`tabletop_world.language.vocabulary`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Affordance:
    """A use that things can be put to.

    Attributes:
        key: Short name (``drink_from``).
        categories: Category keys that certainly serve.
        doubtful: Category keys that may or may not serve.
        phrases: Ways to say it, the plainest first.
        max_thickness: Metres; what is thicker than this in every direction is doubtful. 0: no
            limit.
    """

    key: str
    categories: frozenset[str]
    doubtful: frozenset[str]
    phrases: tuple[str, ...]
    max_thickness: float = 0.0


_GRASPABLE = (
    'mug glass wine_glass bowl plate bottle can vase pot pan kettle jug spoon fork knife spatula '
    'ball apple orange lemon banana carrot book box block laptop keyboard phone remote scissors '
    'hammer screwdriver pen lamp plant candle tape clock bucket basket'
)


def _affordance(
    key: str, categories: str, phrases: str, doubtful: str = '', max_thickness: float = 0.0
) -> Affordance:
    return Affordance(
        key,
        frozenset(categories.split()),
        frozenset(doubtful.split()),
        tuple(line.strip() for line in phrases.strip().splitlines()),
        max_thickness,
    )


AFFORDANCES: tuple[Affordance, ...] = (
    _affordance(
        'grasp',
        _GRASPABLE,
        """something to grasp
        something to grab
        something to pick up
        a thing that a gripper can grasp
        things the robot can pick up
        anything that can be picked up
        an object that I can hold in my hand
        something I can lift with one hand
        graspable objects
        objects to pick and place
        everything that is graspable""",
        'bin',
        max_thickness=0.16,
    ),
    _affordance(
        'drink_from',
        'mug glass wine_glass',
        """something to drink from
        something to drink out of
        a thing I can drink out of
        drinking vessel
        a vessel for drinking
        something I can sip from
        something that holds a drink for me
        a thing for drinking
        where I can have a drink from
        something to have a drink in
        something used for drinking""",
        'bottle can',
    ),
    _affordance(
        'drink_coffee_from',
        'mug',
        """something to drink coffee from
        something to drink tea from
        something for a hot drink
        something to have my coffee in
        a thing for hot coffee
        something to serve tea in
        where I would pour my coffee
        something for hot chocolate
        something to have tea from
        a thing for my morning coffee""",
        'glass',
    ),
    _affordance(
        'drink_wine_from',
        'wine_glass',
        """something to drink wine from
        something to drink wine out of
        something to serve wine in
        a thing for drinking wine
        something to taste wine from
        a drinking vessel for wine
        something to sip wine from
        something for a drink of wine
        something for champagne
        something to toast with""",
        'glass mug',
    ),
    _affordance(
        'cut_with',
        'knife scissors',
        """something to cut with
        a thing for cutting
        something sharp
        something that cuts
        cutting tool
        something I can cut with
        a sharp thing
        something to cut things up with
        a tool for cutting
        something used for cutting
        something sharp that cuts""",
    ),
    _affordance(
        'cut_bread_with',
        'knife',
        """something to slice bread with
        something to spread butter with
        something to chop vegetables with
        something to cut food with
        a thing for slicing
        something to slice with
        something for spreading butter
        something to carve meat with
        something to cut an apple with
        something to peel potatoes with""",
        'scissors spatula',
    ),
    _affordance(
        'cut_paper_with',
        'scissors',
        """something to cut paper with
        something to cut hair with
        something to cut cloth with
        a thing for cutting paper
        something to snip with
        something to trim paper with
        a tool for cutting fabric
        something to cut string with
        something to cut out shapes with
        something for cutting hair""",
        'knife',
    ),
    _affordance(
        'sit_on',
        'chair stool',
        """something to sit on
        somewhere to sit
        a place to sit
        a thing to sit on
        something I can sit on
        somewhere I can sit down
        something for sitting
        where a person can sit
        something to sit down on
        a place to sit down
        furniture for sitting""",
    ),
    _affordance(
        'eat',
        'apple orange lemon banana carrot',
        """something to eat
        something edible
        a thing I can eat
        something I could eat
        something for a snack
        something that can be eaten
        something that tastes good
        something for when I am hungry
        edible things
        a healthy thing to eat
        something to bite into""",
    ),
    _affordance(
        'peel',
        'banana orange',
        """something to peel
        something to peel and eat
        a fruit to peel
        something with a peel
        fruit that I have to peel
        something I peel before eating
        a thing that needs peeling
        something that gets peeled
        something to peel by hand
        food to peel""",
        'lemon carrot apple',
    ),
    _affordance(
        'sour',
        'lemon',
        """something sour
        something that tastes sour
        something to make lemonade with
        something to squeeze over fish
        a sour fruit
        something for lemonade
        a thing that tastes sour
        something sour to squeeze
        something to put in a tea that is sour
        fruit that is sour""",
        'orange',
    ),
    _affordance(
        'write_with',
        'pen',
        """something to write with
        a thing to write with
        something for writing
        something I can write with
        something to draw with
        something to sign my name with
        writing tool
        a tool for writing
        something to take notes with
        something to make a drawing with
        something used for writing""",
    ),
    _affordance(
        'read',
        'book',
        """something to read
        a thing to read
        something I can read
        something for reading
        reading matter
        something with a story in it
        something to learn from
        something with pages
        something to read in bed
        something to look at pages in
        something used for reading""",
    ),
    _affordance(
        'pour_from',
        'jug kettle bottle',
        """something to pour from
        something to pour water from
        a thing to pour from
        something I can pour out of
        something for pouring
        something that pours
        something to pour a drink from
        something to fill a glass from
        a vessel for pouring
        something to serve water from
        something used for pouring""",
        'can',
    ),
    _affordance(
        'boil_water',
        'kettle',
        """something to boil water in
        something to make tea with
        something to heat water in
        a thing for boiling water
        something that boils water
        something for making tea
        something to boil water for tea
        a thing that heats water
        something to get hot water from
        something used for boiling water""",
        'pot pan',
    ),
    _affordance(
        'cook_in',
        'pot pan',
        """something to cook in
        something to cook with
        something to put on the stove
        a thing to cook in
        something to cook food in
        something for cooking
        something I can cook in
        something to make dinner in
        something to heat food in
        something used for cooking""",
        'kettle spatula spoon bowl',
    ),
    _affordance(
        'fry_in',
        'pan',
        """something to fry eggs in
        something to fry with
        something for frying
        a thing to fry in
        something to fry an egg in
        something to make pancakes in
        something to make an omelette in
        something to fry fish in
        a thing for frying food
        something used for frying""",
        'pot spatula',
    ),
    _affordance(
        'flowers',
        'vase',
        """something to put flowers in
        something for flowers
        a thing to put flowers in
        something to hold flowers
        something for a bunch of flowers
        something to put roses in
        a place for flowers
        something that holds flowers
        something to display flowers in
        somewhere to put the flowers""",
        'plant jug',
    ),
    _affordance(
        'tell_time',
        'clock',
        """something to tell the time
        something that tells the time
        something that shows the time
        a thing that tells me the time
        what time is it
        something to check the time on
        something to wake me up
        something to see the hour
        something with hands that shows hours
        something for telling the time
        a device that shows the time""",
        'phone laptop',
    ),
    _affordance(
        'give_light',
        'lamp',
        """something that gives light
        something to light the room
        a thing that gives light
        something that makes light
        something to light up the table
        something for light
        something that glows
        a source of light
        a light source
        something to brighten the room
        something to see by in the dark""",
        'candle laptop phone',
    ),
    _affordance(
        'burn',
        'candle',
        """something to light with a match
        something that burns
        something made of wax
        something with a wick
        something for a birthday cake
        something to burn
        a thing with a flame
        something for a romantic dinner
        a wax thing
        something that melts as it burns""",
    ),
    _affordance(
        'rubbish',
        'bin',
        """something to throw away rubbish in
        somewhere to throw away rubbish
        a place for rubbish
        something to throw things away in
        where rubbish goes
        something for waste
        a thing to put rubbish in
        somewhere to put waste
        something to throw waste paper in
        where I throw litter
        something for throwing things away""",
        'bucket basket',
    ),
    _affordance(
        'type_on',
        'keyboard laptop',
        """something to type on
        something with keys
        a thing to type on
        something for typing
        something I can type on
        something to write an email on
        something to type a letter on
        a device for typing
        something to type with
        something used for typing""",
        'phone remote',
    ),
    _affordance(
        'call_with',
        'phone',
        """something to call someone with
        something to make a call with
        something to ring someone with
        something for calling people
        a thing to call my mother with
        something to send a text message with
        a device for calling
        something to take a selfie with
        something to call a friend on
        something that rings""",
        'laptop',
    ),
    _affordance(
        'change_channel',
        'remote',
        """something to change the channel with
        something to switch the tv on with
        something to control the tv
        a thing for changing the channel
        something to turn on the television
        something to turn the volume up with
        something for the television
        something that controls the television
        something to change tv channels
        a device to control the tv""",
        'phone',
    ),
    _affordance(
        'drive_nails',
        'hammer',
        """something to hit nails with
        something to hammer with
        something to drive a nail in with
        a thing for hitting nails
        a tool for nails
        something to bang in a nail
        something to knock nails in with
        something to hit things with
        a tool to hit nails with
        something for nails""",
    ),
    _affordance(
        'turn_screws',
        'screwdriver',
        """something to turn screws with
        something to tighten a screw
        something for screws
        a thing to turn a screw with
        a tool for screws
        something to loosen screws with
        something to put a screw in with
        something to undo a screw
        a tool to turn screws with
        something for tightening screws""",
    ),
    _affordance(
        'repair_with',
        'hammer screwdriver',
        """something to repair things with
        something to fix things with
        a tool for repairs
        something for the workshop
        something from a toolbox
        something to mend things with
        something for repairs
        something to do odd jobs with
        a thing for fixing furniture
        something to build things with""",
        'tape scissors knife pen block',
    ),
    _affordance(
        'stick_with',
        'tape',
        """something to stick paper together with
        something sticky
        something to close a box with
        something to seal a box with
        something to stick things with
        a sticky thing
        something adhesive
        something to wrap a present with
        something to hang a poster with
        something that sticks""",
    ),
    _affordance(
        'play_with',
        'ball block',
        """something to play with
        something for a child to play with
        a thing to play with
        something children play with
        something for playing
        something fun for kids
        something a toddler would like
        something to keep a child busy
        something from the toy chest
        something used for playing""",
    ),
    _affordance(
        'throw',
        'ball',
        """something to throw and catch
        something to kick
        something that bounces
        something to throw
        a thing to kick
        something for playing catch
        something to play catch with
        something to bounce
        something to roll and kick
        something for a game of catch""",
    ),
    _affordance(
        'stack',
        'block',
        """something to stack up
        something to build a tower with
        something to build with
        a thing to build towers with
        something for building towers
        something to make a tower of
        something to stack
        something for stacking
        something a child builds with
        something to build a toy house with""",
        'box book',
    ),
    _affordance(
        'carry_in',
        'basket bucket',
        """something to carry things in
        something to carry apples in
        something to carry my things with
        a thing to carry stuff in
        something for carrying things
        something to take things along in
        something to gather fruit in
        something to put stuff in and carry
        something with room to carry things
        something used to carry things""",
        'box bin',
    ),
    _affordance(
        'keep_books_on',
        'shelf',
        """something to put books on
        somewhere to put books
        a place for books
        something to keep books on
        something to store books on
        furniture for books
        something that holds books
        where I would keep my books
        something for a row of books
        somewhere to keep books""",
        'table tabletop cabinet',
    ),
    _affordance(
        'keep_clothes_in',
        'cabinet',
        """something to keep clothes in
        something to put socks in
        something with drawers
        furniture for storing things
        something to store clothes in
        something to keep papers in
        somewhere to put away clothes
        something to keep things in that has drawers
        furniture with drawers
        something to put things away in""",
        'basket shelf box',
    ),
    _affordance(
        'send_in',
        'box',
        """something to send by post
        something to pack things in
        something to unpack
        a thing to pack stuff in
        something to ship things in
        something to move house with
        something for packing
        something to put a gift in
        something the postman brings
        something to pack books in""",
        'basket',
    ),
    _affordance(
        'serve_food_on',
        'plate',
        """something to serve food on
        something to put a sandwich on
        something to eat off
        a thing to put food on
        something for my dinner
        something to serve cake on
        something flat to eat from
        something to put pizza on
        something to put a slice of cake on
        something used for serving food""",
        'bowl',
    ),
    _affordance(
        'eat_soup_from',
        'bowl',
        """something to eat soup from
        something to eat cereal from
        something for soup
        a thing to eat soup out of
        something to put soup in
        something to put salad in
        something to eat porridge out of
        something to serve soup in
        something for breakfast cereal
        something to mix a salad in""",
        'plate pot mug',
    ),
    _affordance(
        'eat_with',
        'spoon fork',
        """something to eat with
        something to eat my dinner with
        something to put food in my mouth with
        a thing to eat with
        something for eating
        something I can eat with
        something to eat a meal with
        something to eat cake with
        something used for eating
        something to feed a child with""",
        'knife',
    ),
    _affordance(
        'spear_with',
        'fork',
        """something to eat pasta with
        something to pick up meat with
        something with prongs
        something to eat spaghetti with
        something to spear food with
        something to twirl noodles with
        a thing with prongs
        something to stick in a potato
        something to eat salad with
        something pointed to eat with""",
        'spoon knife',
    ),
    _affordance(
        'scoop_with',
        'spoon',
        """something to eat soup with
        something to stir my tea with
        something to scoop sugar with
        something to stir coffee with
        something to eat ice cream with
        a thing for stirring tea
        something to scoop with
        something to eat yogurt with
        something to taste soup with
        something to add sugar with""",
        'fork spatula',
    ),
    _affordance(
        'flip_with',
        'spatula',
        """something to flip pancakes with
        something to turn a pancake
        something to flip food with
        something to turn eggs over with
        a thing for flipping
        something to flip a burger with
        something to lift fried eggs with
        something to turn fish in the pan
        something for turning food
        something used for flipping""",
        'fork',
    ),
    _affordance(
        'mop_water',
        'bucket',
        """something to carry water in
        something to clean the floor with
        something to mop with
        something to wash the floor with
        a thing to fetch water with
        something to fill with soapy water
        something for mopping
        something to fetch water in
        something for cleaning
        something to build a sand castle with""",
        'jug bottle kettle pot bin block',
    ),
    _affordance(
        'grows',
        'plant',
        """something that grows
        something to water
        something green that grows
        something alive
        a living thing
        something with leaves
        something that needs water
        something leafy
        a thing that grows
        something to give water to""",
        'carrot apple',
    ),
    _affordance(
        'compute',
        'laptop',
        """something to run programs on
        something to browse the web with
        something to watch a film on
        something with a screen and keys
        a thing to surf the internet with
        something to write code on
        something to do homework on with keys
        something to run software on
        something to answer email on
        something that folds and has a screen""",
        'phone keyboard',
    ),
    _affordance(
        'put_things_on',
        'table tabletop',
        """something to put things on
        somewhere to put things down
        a place to put things
        something to put a plate on
        a surface to work on
        somewhere to place an object
        something to eat dinner at
        somewhere I can put something
        a flat surface to put things on
        a free place to put something down""",
        'shelf cabinet stool chair',
    ),
    _affordance(
        'walk_on',
        'floor',
        """something to walk on
        where I can walk
        something to stand on
        where the robot can drive
        a surface to walk on
        where people walk
        somewhere to drive
        something to sweep
        where I could walk
        what lies under my feet""",
        'stool chair',
    ),
)
