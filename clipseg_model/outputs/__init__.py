"""Masks, label images, overlays and colours made of a segmented image."""
