"""Figures and files: matplotlib figures, image tiles, animations, point clouds, depth files.

`plot` draws matplotlib figures, and `scenes` draws rotatable plotly figures. `tiles` turns tensors into small RGBA
images. `animation` renders GIF and MP4 files. `cloud` projects depth back to points in space. `depth_files` writes
depth maps as PNG (in colour, 16-bit grey, millimetres) and NPY.

Not in this package: everything that reacts to a pointer (`probes.explorers`).
"""
