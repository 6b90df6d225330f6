"""What several explorers share, in Python and JavaScript. No widget lives here.

- `answering`: answers the requests of a view and writes pages.
- `controls`: checks names and values of controls.
- `subject`, `live_subject`, `stored_subject`: the image and model, or the stored image, that an explorer shows.
- `arguments`: what users pass to explorers, checked.
- `packing`: encodes attention for the browser.
- `summary`, `drawing`, `scales`: what an explorer shows, in words and as a picture.
- `pages`: reads the built JavaScript and writes standalone pages.

The JavaScript modules are described in their own headers. Whatever a single explorer needs stays in its folder.
"""
