"""What the records of a scene leave open about how its things look.

An object's record names one colour and one material. These tables say what else a picture of such
a thing may show, or may not tell apart; questions about it are then doubtful.
"""

from __future__ import annotations

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
