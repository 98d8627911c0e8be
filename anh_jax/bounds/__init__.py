"""Bounds: how far a step recomputed elsewhere may lie from the committed one."""
