"""Files: written whole or not at all, read within bounds, found in the user's folders."""
