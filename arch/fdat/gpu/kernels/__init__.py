"""The kernels, in Triton: import from here only where triton is installed.

Triton's blocks have powers of two as sides, so C channels are held in a piece of ``CA`` places and,
where that wastes less, another one of ``CB`` (180 in 128 + 64), of which the last are zero. Values
are in float32 between loads, products and stores.
"""
