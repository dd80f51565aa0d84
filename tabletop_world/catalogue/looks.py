"""What the records of a scene leave open about how its things look.

An object's record names one colour and one material. These tables say what else a picture of such
a thing may show, or may not tell apart; questions about it are then doubtful.
"""

from __future__ import annotations

# Categories whose main material cannot be told from a picture (a ceramic bowl from a plastic one).
HARD_TO_TELL: dict[str, frozenset[str]] = {
    'bowl': frozenset({'ceramic', 'plastic'}),
    'jug': frozenset({'ceramic', 'plastic'}),
    'bottle': frozenset({'plastic', 'glass', 'metal'}),
    'kettle': frozenset({'metal', 'ceramic'}),
    'block': frozenset({'wood', 'plastic'}),
    'lamp': frozenset({'fabric', 'metal', 'plastic', 'glass'}),
    'clock': frozenset({'metal', 'plastic', 'glass'}),
    'bucket': frozenset({'metal', 'plastic'}),
    'bin': frozenset({'metal', 'plastic'}),
    'stool': frozenset({'wood', 'metal', 'plastic'}),
    'chair': frozenset({'wood', 'plastic'}),
    # Things of several materials.
    'hammer': frozenset({'metal', 'wood', 'plastic'}),
    'screwdriver': frozenset({'metal', 'plastic'}),
    'scissors': frozenset({'metal', 'plastic'}),
    'knife': frozenset({'metal', 'wood', 'plastic'}),
    'spatula': frozenset({'wood', 'plastic', 'metal'}),
    'laptop': frozenset({'metal', 'plastic', 'glass'}),
    'phone': frozenset({'metal', 'plastic', 'glass'}),
    'pen': frozenset({'metal', 'plastic'}),
    'plant': frozenset({'ceramic', 'plastic'}),
    'spoon': frozenset({'wood', 'metal', 'plastic'}),
    'fork': frozenset({'metal', 'plastic'}),
    'basket': frozenset({'wood', 'plastic', 'fabric'}),
    'tape': frozenset({'plastic', 'paper', 'wood'}),
    'candle': frozenset({'metal'}),
    'pan': frozenset({'plastic', 'wood'}),
    'pot': frozenset({'ceramic', 'plastic'}),
}

# Colours that things of a category show beside their dominant one (the blade of a red knife).
ALSO_SHOWN: dict[str, frozenset[str]] = {
    'book': frozenset({'white'}),
    'laptop': frozenset({'black', 'blue', 'white', 'grey'}),
    'keyboard': frozenset({'grey', 'black'}),
    'phone': frozenset({'black'}),
    'clock': frozenset({'white'}),
    'lamp': frozenset({'grey', 'white'}),
    'can': frozenset({'grey'}),
    'carrot': frozenset({'green'}),
    'banana': frozenset({'brown'}),
    'knife': frozenset({'grey'}),
    'scissors': frozenset({'grey'}),
    'hammer': frozenset({'grey'}),
    'screwdriver': frozenset({'grey'}),
    'spatula': frozenset({'brown'}),
    'pan': frozenset({'black', 'grey'}),
    'pot': frozenset({'black', 'grey'}),
    'kettle': frozenset({'black'}),
    'tape': frozenset({'brown'}),
    'plant': frozenset({'brown', 'white', 'grey', 'black', 'orange'}),
    'cabinet': frozenset({'grey', 'black'}),
    'bucket': frozenset({'grey'}),
}

# The second colour of a pattern is one of these.
PATTERN_COLOURS = frozenset({'white', 'black'})
# What things without a nameable colour may be called, by pattern: beige walls, tiled floors.
NAMELESS: dict[str, frozenset[str]] = {
    'plain': frozenset({'white', 'yellow', 'orange', 'brown', 'pink', 'grey'}),
    'checked': frozenset({'white', 'black', 'grey', 'brown', 'blue', 'red'}),
}
# What clear glass, and what is poured into it, may look like.
CLEAR = frozenset({'white', 'grey'})
DRINKS = frozenset({'white', 'grey', 'orange', 'red', 'yellow', 'purple', 'brown', 'pink'})

# Things with a handle or a pole: a hand finds a hold on them at any size.
HANDLED = frozenset({'bucket', 'basket', 'lamp'})

# States of which a thing shows exactly one, if it shows either.
OPPOSITE = {'open': 'closed', 'closed': 'open', 'full': 'empty', 'empty': 'full'}
