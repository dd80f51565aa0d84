"""The words of the tabletop world: names, hypernyms, colours, materials and held-back words.

A name stands for a set of categories, so its truth in a scene is exact by construction. Where
people disagree whether a word covers a category (is a bottle a "drinking vessel"?), that category
is *doubtful*: a phrase is never used, neither as true nor as absent, while a doubtful thing is in
view (:mod:`tabletop_world.language.queries`).

:data:`UNSEEN_WORDS` never occur in a phrase that :mod:`tabletop_world.language.phrases` makes.
They measure what a model understands beyond the grammar that it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Name:
    """A noun and the categories that it stands for.

    Attributes:
        singular: The noun for one thing (``coffee mug``).
        plural: The noun for several, or ``''`` where none is natural.
        categories: Category keys that the noun certainly covers.
        doubtful: Category keys that some people would count in and others would not.
        hypernym: Whether it names a family (``fruit``) and not a category.
        pair: Whether it has no singular form of its own (``scissors``): no article "a".
        mass: Whether it is uncountable (``cutlery``): no article "a".
    """

    singular: str
    plural: str
    categories: frozenset[str]
    doubtful: frozenset[str] = frozenset()
    hypernym: bool = False
    pair: bool = False
    mass: bool = False


_IRREGULAR = {'knife': 'knives', 'shelf': 'shelves'}


def pluralise(noun: str) -> str:
    """Returns the plural of an English noun phrase whose head is its last word.

    The head of ``roll of tape`` or ``plant in a pot`` is the word before the preposition.
    """
    words = noun.split(' ')
    head = next(
        (i - 1 for i, word in enumerate(words) if i and word in _PREPOSITIONS), len(words) - 1
    )
    word = words[head]
    if word in _IRREGULAR:
        plural = _IRREGULAR[word]
    elif word.endswith(('s', 'x', 'sh', 'ch')):
        plural = word + 'es'
    elif word.endswith('y') and word[-2] not in 'aeiou':
        plural = word[:-1] + 'ies'
    else:
        plural = word + 's'
    return ' '.join([*words[:head], plural, *words[head + 1 :]])


_PREPOSITIONS = frozenset({'of', 'in', 'with', 'for', 'on', 'to'})


def _names(
    categories: str, nouns: str, doubtful: str = '', *, hypernym: bool = False
) -> tuple[Name, ...]:
    """Builds names from comma-separated nouns and space-separated categories."""
    return tuple(
        Name(
            noun,
            pluralise(noun),
            frozenset(categories.split()),
            frozenset(doubtful.split()),
            hypernym,
        )
        for noun in _split(nouns)
    )


def _fixed(
    categories: str,
    nouns: str,
    doubtful: str = '',
    *,
    hypernym: bool = False,
    pair: bool = False,
    mass: bool = False,
) -> tuple[Name, ...]:
    """Builds names that have one form only (``scissors``, ``cutlery``)."""
    return tuple(
        Name(
            noun,
            '',
            frozenset(categories.split()),
            frozenset(doubtful.split()),
            hypernym,
            pair,
            mass,
        )
        for noun in _split(nouns)
    )


def _split(nouns: str) -> list[str]:
    return [noun.strip() for noun in nouns.split(',')]


# The first name of a category is its plainest one; it is drawn most often.
CATEGORY_NAMES: dict[str, tuple[Name, ...]] = {
    'mug': _names('mug', 'mug, coffee mug, coffee cup, tea mug, drinking mug, mug with a handle')
    + _names('mug', 'cup', 'glass wine_glass can'),
    'glass': _names('glass wine_glass', 'glass')
    + _names(
        'glass',
        'drinking glass, water glass, juice glass, glass for water, glass for juice',
        'wine_glass',
    ),
    'wine_glass': _names(
        'wine_glass',
        'wine glass, wineglass, stemmed glass, glass with a stem, glass for wine, '
        'long stemmed glass',
    ),
    'bowl': _names(
        'bowl', 'bowl, soup bowl, cereal bowl, salad bowl, serving bowl, mixing bowl, food bowl'
    ),
    'plate': _names(
        'plate',
        'plate, dinner plate, side plate, lunch plate, food plate, serving plate, flat plate',
    ),
    'bottle': _names(
        'bottle', 'bottle, water bottle, drinks bottle, juice bottle, soda bottle, wine bottle'
    ),
    'can': _names('can', 'can, drinks can, soda can, beverage can, tin can, cola can, can of soda'),
    'vase': _names(
        'vase', 'vase, flower vase, vase for flowers, decorative vase, pottery vase, flower holder'
    ),
    'pot': _names('pot', 'pot', 'plant')
    + _names(
        'pot',
        'cooking pot, soup pot, stew pot, stock pot, pasta pot, kitchen pot, pot for cooking',
    ),
    'pan': _names(
        'pan', 'pan, frying pan, fry pan, omelette pan, cooking pan, kitchen pan, pan for frying'
    ),
    'kettle': _names(
        'kettle',
        'kettle, tea kettle, water kettle, kitchen kettle, kettle with a spout, kettle for tea',
    ),
    'jug': _names(
        'jug', 'jug, water jug, milk jug, juice jug, pouring jug, serving jug, jug with a spout'
    ),
    'spoon': _names(
        'spoon', 'spoon, table spoon, soup spoon, dessert spoon, eating spoon, kitchen spoon'
    ),
    'fork': _names(
        'fork', 'fork, dinner fork, table fork, salad fork, eating fork, fork with prongs'
    ),
    'knife': _names(
        'knife', 'knife, kitchen knife, table knife, dinner knife, cutting knife, steak knife'
    ),
    'spatula': _names(
        'spatula',
        'spatula, kitchen spatula, cooking spatula, frying spatula, fish slice, pancake spatula',
    ),
    'ball': _names('ball', 'ball, toy ball, rubber ball, bouncy ball, play ball, round ball'),
    'apple': _names('apple', 'apple, fresh apple, ripe apple, eating apple, whole apple'),
    'orange': _names('orange', 'orange, fresh orange, ripe orange, juicy orange, whole orange'),
    'lemon': _names('lemon', 'lemon, fresh lemon, ripe lemon, sour lemon, juicy lemon'),
    'banana': _names('banana', 'banana, fresh banana, ripe banana, whole banana, curved banana'),
    'carrot': _names('carrot', 'carrot, fresh carrot, raw carrot, garden carrot, whole carrot'),
    'book': _names(
        'book', 'book, reading book, story book, library book, bound book, book with pages'
    ),
    'box': _names(
        'box', 'box, storage box, packing box, package, shipping box, delivery box, box with sides'
    ),
    'block': _names(
        'block', 'block, toy block, building block, play block, brick, toy brick, building brick'
    ),
    'laptop': _names(
        'laptop', 'laptop, work laptop, office laptop, portable laptop, laptop with a screen'
    ),
    'keyboard': _names(
        'keyboard',
        'keyboard, typing keyboard, external keyboard, qwerty keyboard, keyboard with keys',
        'laptop',
    ),
    'phone': _names(
        'phone', 'phone, mobile phone, cell phone, cellphone, mobile, touchscreen phone'
    ),
    'remote': _names(
        'remote',
        'remote, remote control, tv remote, television remote, tv control, remote with buttons',
    ),
    'scissors': _fixed(
        'scissors',
        'scissors, paper scissors, office scissors, kitchen scissors, craft scissors',
        pair=True,
    )
    + _names('scissors', 'pair of scissors'),
    'hammer': _names('hammer', 'hammer, claw hammer, nail hammer, workshop hammer, hand hammer'),
    'screwdriver': _names(
        'screwdriver',
        'screwdriver, screw driver, hand screwdriver, workshop screwdriver, '
        'screwdriver with a handle',
    ),
    'pen': _names('pen', 'pen, writing pen, ink pen, office pen, school pen, pen with ink'),
    'lamp': _names(
        'lamp', 'lamp, reading lamp, electric lamp, lamp with a shade, shaded lamp, electric light'
    )
    + _names('lamp', 'light', 'candle'),
    'plant': _names(
        'plant', 'plant, potted plant, pot plant, indoor plant, leafy plant, plant in a pot'
    ),
    'candle': _names(
        'candle', 'candle, wax candle, table candle, dinner candle, candle with a wick'
    ),
    'tape': _names(
        'tape', 'tape, roll of tape, tape roll, sticky tape, adhesive tape, packing tape'
    ),
    'clock': _names(
        'clock', 'clock, alarm clock, table clock, bedside clock, analogue clock, clock with hands'
    ),
    'bucket': _names(
        'bucket', 'bucket, water bucket, cleaning bucket, mop bucket, household bucket'
    ),
    'basket': _names(
        'basket', 'basket, storage basket, woven basket, household basket, plaited basket'
    ),
    'chair': _names(
        'chair', 'chair, dining chair, kitchen chair, side chair, chair with a back, upright chair'
    ),
    'stool': _names(
        'stool', 'stool, kitchen stool, bar stool, step stool, counter stool, backless stool'
    ),
    'table': _names('table tabletop', 'table')
    + _names('table', 'side table, coffee table, end table, low table', 'tabletop'),
    'shelf': _names('shelf', 'shelf, shelf unit, shelving unit, storage shelf, book shelf')
    + _fixed('shelf', 'shelves, set of shelves', pair=True),
    'cabinet': _names(
        'cabinet', 'cabinet, storage cabinet, drawer unit, chest of drawers, drawer cabinet'
    ),
    'bin': _names(
        'bin', 'bin, waste bin, rubbish bin, litter bin, paper bin, office bin, bin for rubbish'
    ),
    'tabletop': _names('table tabletop', 'table')
    + _fixed(
        'tabletop', 'table top, tabletop, table surface, surface of the table', 'table', mass=True
    ),
    'floor': _fixed(
        'floor', 'floor, ground, floor surface, flooring, floor of the room', mass=True
    ),
    'wall': _fixed('wall', 'wall, back wall, wall of the room, room wall', mass=True),
}

HYPERNYMS: tuple[Name, ...] = (
    *_names(
        'mug glass wine_glass bowl bottle can vase pot kettle jug box bucket basket bin',
        'container',
        'plate pan plant cabinet shelf candle',
        hypernym=True,
    ),
    *_names(
        'mug glass wine_glass bowl bottle vase pot kettle jug',
        'vessel',
        'can pan bucket bin basket plate plant',
        hypernym=True,
    ),
    *_fixed('mug glass wine_glass', 'drinkware', 'bottle can jug', hypernym=True, mass=True),
    *_names('apple orange lemon banana', 'fruit, piece of fruit', hypernym=True),
    *_names('carrot', 'vegetable', hypernym=True),
    *_fixed('apple orange lemon banana carrot', 'food', hypernym=True, mass=True),
    *_names('apple orange lemon banana carrot', 'food item, healthy snack', hypernym=True),
    *_fixed('spoon fork knife', 'cutlery', 'spatula scissors', hypernym=True, mass=True),
    *_names(
        'spoon fork knife spatula', 'utensil, kitchen utensil', 'pan pot scissors', hypernym=True
    ),
    *_fixed('pot pan', 'cookware', 'kettle bowl spatula', hypernym=True, mass=True),
    *_fixed(
        'plate bowl mug',
        'crockery',
        'glass wine_glass jug vase kettle pot',
        hypernym=True,
        mass=True,
    ),
    *_names(
        'hammer screwdriver', 'tool, hand tool', 'scissors knife tape pen spatula', hypernym=True
    ),
    *_fixed(
        'chair stool table shelf cabinet',
        'furniture',
        'tabletop lamp bin basket',
        hypernym=True,
        mass=True,
    ),
    *_names(
        'chair stool table shelf cabinet',
        'piece of furniture',
        'tabletop lamp bin basket',
        hypernym=True,
    ),
    *_names(
        'laptop keyboard phone remote',
        'electronic device, gadget, electronic gadget',
        'clock lamp kettle',
        hypernym=True,
    ),
    *_fixed(
        'laptop keyboard phone remote',
        'electronics',
        'clock lamp kettle',
        hypernym=True,
        mass=True,
    ),
    *_names('ball block', 'toy, plaything', hypernym=True),
    *_fixed('pen scissors tape', 'stationery', 'book keyboard', hypernym=True, mass=True),
    *_names('pen scissors tape', 'office supply', 'book keyboard laptop phone', hypernym=True),
)

SURFACES: tuple[str, ...] = ('tabletop', 'floor', 'wall')

# Adjectives by colour key; the first is the plainest.
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    'red': ('red', 'red coloured'),
    'orange': ('orange', 'orange coloured'),
    'yellow': ('yellow', 'yellow coloured'),
    'green': ('green', 'green coloured'),
    'blue': ('blue', 'blue coloured'),
    'purple': ('purple', 'violet'),
    'pink': ('pink', 'rosy'),
    'brown': ('brown', 'brown coloured'),
    'black': ('black', 'black coloured'),
    'white': ('white', 'white coloured'),
    'grey': ('grey', 'gray'),
}

# Words of an attribute: (before the noun, after the noun).
Wording = tuple[tuple[str, ...], tuple[str, ...]]

MATERIAL_WORDS: dict[str, Wording] = {
    'ceramic': (('ceramic',), ('made of ceramic',)),
    'metal': (('metal', 'metallic'), ('made of metal', 'made from metal')),
    'wood': (('wooden',), ('made of wood', 'made from wood')),
    'plastic': (('plastic',), ('made of plastic', 'made from plastic')),
    'glass': (('glass',), ('made of glass', 'made from glass')),
}

PATTERN_WORDS: dict[str, Wording] = {
    'striped': (('striped', 'stripy'), ('with stripes', 'that is striped')),
    'dotted': (('dotted', 'spotted', 'polka dot'), ('with dots', 'with spots')),
    'checked': (('checked', 'checkered', 'chequered'), ('with checks', 'with a check pattern')),
}

SIZE_WORDS: dict[str, Wording] = {
    'small': (('small', 'little'), ('that is small',)),
    'large': (('large', 'big'), ('that is large', 'that is big')),
}

_LIDDED: dict[str, Wording] = {
    'open': (('open',), ('without a lid', 'that is open')),
    'closed': (('closed', 'covered'), ('with a lid', 'that is closed')),
}
_OPENED: dict[str, Wording] = {
    'open': (('open', 'opened'), ('that is open',)),
    'closed': (('closed', 'shut'), ('that is closed',)),
}
_FILLED: dict[str, Wording] = {
    'full': (('full', 'filled'), ('with a drink in it', 'that is full', 'with liquid in it')),
    'empty': (('empty',), ('that is empty', 'with nothing in it')),
}

_LYING: dict[str, Wording] = {
    'lying': (('toppled', 'fallen'), ('lying on its side', 'on its side', 'lying down')),
}

# States worth saying, by category: those that a picture shows and that differ between specimens.
STATE_WORDS: dict[str, dict[str, Wording]] = {
    'mug': _FILLED,
    'glass': _FILLED,
    'wine_glass': _FILLED,
    'vase': {
        'full': ((), ('with flowers', 'with flowers in it', 'holding flowers')),
        'empty': (('empty',), ('without flowers', 'with nothing in it')),
    },
    'bottle': _LYING,
    'can': _LYING,
    'pot': _LIDDED,
    'bin': _LIDDED,
    'book': _OPENED,
    'box': _OPENED,
    'laptop': {'on': ((), ('that is on', 'that is switched on', 'with its screen on'))},
    'candle': {'lit': (('lit', 'burning'), ('that is lit', 'that is burning', 'with a flame'))},
    'lamp': {'lit': (('lit', 'glowing'), ('that is on', 'that is lit', 'that is switched on'))},
}


def _unseen(**words: str) -> dict[str, tuple[str, ...]]:
    return {word: tuple(categories.split()) for word, categories in words.items()}


UNSEEN_WORDS: dict[str, tuple[str, ...]] = _unseen(
    teacup='mug',
    tankard='mug',
    tumbler='glass',
    goblet='wine_glass',
    chalice='wine_glass',
    dish='plate bowl',
    saucer='plate',
    platter='plate',
    flask='bottle',
    pitcher='jug',
    carafe='jug',
    urn='vase',
    saucepan='pot pan',
    skillet='pan',
    wok='pan',
    teapot='kettle',
    teaspoon='spoon',
    ladle='spoon',
    silverware='spoon fork knife',
    dagger='knife',
    shears='scissors',
    football='ball',
    clementine='orange',
    tangerine='orange',
    citrus='orange lemon',
    lime='lemon',
    plantain='banana',
    novel='book',
    textbook='book',
    paperback='book',
    carton='box',
    crate='box',
    parcel='box',
    cube='block',
    computer='laptop',
    macbook='laptop',
    smartphone='phone',
    telephone='phone',
    handset='phone',
    clicker='remote',
    mallet='hammer',
    biro='pen',
    ballpoint='pen',
    pencil='pen',
    lantern='lamp',
    lampshade='lamp',
    shrub='plant',
    fern='plant',
    houseplant='plant',
    sellotape='tape',
    timepiece='clock',
    pail='bucket',
    hamper='basket',
    armchair='chair',
    seat='chair stool',
    footstool='stool',
    desk='table tabletop',
    bookcase='shelf',
    bookshelf='shelf',
    cupboard='cabinet',
    dresser='cabinet',
    trash='bin',
    garbage='bin',
    dustbin='bin',
    wastebasket='bin',
)


def names_of(category: str) -> tuple[Name, ...]:
    """Returns the names of one category, the plainest first.

    Raises:
        KeyError: If the category has no names.
    """
    if category not in CATEGORY_NAMES:
        raise KeyError(
            f'no names for category {category!r}; add it to tabletop_world.language.vocabulary.'
            f'CATEGORY_NAMES (known: {", ".join(sorted(CATEGORY_NAMES))})'
        )
    return CATEGORY_NAMES[category]


def all_names() -> Iterable[Name]:
    """Yields every name, those of families last."""
    for names in CATEGORY_NAMES.values():
        yield from names
    yield from HYPERNYMS
