"""Benchmarks that users run on their own machine.

`forward` times forward passes with and without a capture, `captures` times `probes.run` on files, `loading` times
`dpt.load`. `measuring` holds what they share.

Not in this package: comparisons with other implementations. They are in ``tests/benchmarks`` of the source tree.
"""
