"""FDAT on whole images in bounded memory: plan, sweeps over the blocks, tail."""
