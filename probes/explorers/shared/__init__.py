"""What several explorers share, in Python and JavaScript. No widget lives here.

- `base`: the bases of explorers, of a model alone or at work on an image.
- `answering`: answers the requests of a view and writes pages.
- `living`, `lifetime`: how an explorer ends, and how long the kernel keeps it.
- `controls`: checks names and values of controls.
- `subject`, `live_subject`, `stored_subject`: the image and model, or the stored image, that an explorer shows.
- `arguments`: what users pass to explorers, checked.
- `packing`: encodes attention for the browser.
- `summary`, `drawing`, `scales`: what an explorer shows, in words and as a picture.
- `pages`: reads the built JavaScript and writes standalone pages.

The JavaScript modules are described in their own headers. Whatever a single explorer needs stays in its folder.
"""
