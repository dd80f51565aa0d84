"""The things of the household: categories, shapes, materials and colours."""
