"""Captures over many images, on disk: started, resumed, verified, repaired and read.

`run` starts a capture, `job` computes one part of it, `dask_engine` spreads the parts over a cluster. `sources` finds
the images, `decoding` and `decode_worker` read them in worker processes, `video` reads frames. `recording` says what is
kept of a pass. `store`, `parts` and `disk` write it, `stored` reads it, `verify` checks and repairs it. `identity`
fingerprints what a run was started with.

Not here: capturing one pass in memory (`probes.capture`), and the command line (`probes.cli`).
"""
