"""What things cost, measured on the user's machine: a pass with and without a capture, whole runs, loading.

`forward` times passes, `captures` times `probes.run` on files, `loading` times `dpt.load`.

Not here: comparisons with other implementations, which are in ``tests/benchmarks`` of the source tree.
"""
