"""Figures and files of what a model did: matplotlib figures, image tiles, animations, point clouds, depth files.

`plot` draws matplotlib figures, `tiles` turns tensors into small RGBA images, `animation` renders GIFs, `cloud`
back-projects depth to points, `depth_files` writes depth maps as PNG and NPY.

Not here: anything that reacts to a pointer (`probes.explorers`).
"""
