"""Captures of many images on disk: start, resume, verify, repair and read them.

Capturing:
    run             `probes.run`: starts or resumes a capture in this process
    options         its keyword arguments
    job             what the engines share: one part, the work left, the report
    dask_engine     the engine that computes parts on a Dask cluster
    identity        what a run was started with, and its fingerprint
Images:
    sources         names the images: files, folders, globs, lists, videos, arrays
    listing         lists folders, globs and text lists
    decoding        decodes images ahead of the model, in child processes
    decode_process  a handle for one child process
    decode_worker   the program of a child process
    video           reads frames by number
Storage:
    recording       selects what is stored of each image
    store           the folder of a run: manifest, lock, recovery after a kill
    parts           writes and reads one part
    records         the records of the JSON files
    disk            sealed JSON lines
    errors          `probes.StoreError` and its subclasses
Reading:
    stored          `probes.open_run`: captures by image name, `Run.stack`
    stored_capture  one image of a run
    part_reader     the arrays of one part
    verify          checks all bytes of a run, recomputes damaged parts

Elsewhere: `probes.capture` records one pass in memory, `probes.cli` is the command line.
"""
