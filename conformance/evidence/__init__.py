"""Evidence: what a run on a machine with a device found, as records that a machine without one can check.

A record is an in-toto Statement about one backend on one device. Its subjects are hashes of the sources that decided it, so that a
later edit shows which of its cells no longer count; its digests are hashes of the bits that the device computed from fixed inputs,
which any CPU can compute again for the cells that are bit-identical.
"""
