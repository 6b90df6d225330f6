"""What several explorers share, in Python and JavaScript.

`base` answers a view's requests, `subject` is the image and model (or stored run) an explorer shows, `packing` encodes
attention for the browser, `pages` reads the built JavaScript and writes standalone pages.
"""
