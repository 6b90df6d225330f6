"""A walk through one forward pass, step by step.

`walk` runs the model once and makes an image of every step; `words` holds the text beside them. The widget that shows
the walk is `probes.explorers.ModelTour`.
"""
