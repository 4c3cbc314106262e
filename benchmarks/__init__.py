"""This tool against the one it replaces, side by side."""

WIDTH, HEIGHT, OBJECTS = 640, 480, 7  # of the data benchmark's photographs, and what is on each
