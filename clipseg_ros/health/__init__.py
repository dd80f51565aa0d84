"""How a node fares: what it says of itself, lost images, and what it watches."""
