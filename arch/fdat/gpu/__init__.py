"""FDAT on devices other than the CPU: fused operators, each with a plain twin, and sweeps of them.

    twins.py       what every operator computes, in plain PyTorch
    operators.py   the operators, registered with torch.library, so that they are traced and counted
    choice.py      kernel or twin: checked and timed at first use on a device
    launch.py      how the kernels are launched; candidates.py, in which ways
    sizes.py       their tiles, places and programs; costs.py, what they move and compute more
    kernels/       the kernels, in Triton; imported only where they are used
    statistics.py  the whole-image statistics and the matrices made of them
    sweeps.py      the blocks; tail.py, the upsampler; memory.py, bytes of a band

A block is three launches for a band: attention half, feed-forward half, and the statistic of the
next block. Fewer are not to be had: attention needs the gate or the matrix made of the statistic,
which is a sum over the whole image; the feed-forward half's depthwise convolution needs neighbours
that other programs compute (recomputing the attention half for a halo costs more than writing y);
and the statistic needs either the feed-forward half's neighbours (the gate) or C x C accumulators
per program (Gram), which would leave no room for the products.
"""
