"""Scenes of the household: which things stand where, in which room, seen from where."""
