"""A walk through one forward pass, part by part.

`parts` lists the parts of a model, and `words` holds the text about each. `recorded` runs the model once and keeps the
tensors, `shots` draws images of them, and `walk` puts all of that together.

Not in this package: the widget that shows the walk, `probes.explorers.ModelTour`.
"""
