"""Spreads work over the devices of this machine, or of many, by Ray. Optional.

Scheduling, transport, the store of what every worker needs, and new processes for those that died
are Ray's. `connection` starts Ray or joins a running cluster, `places` says which workers there
are, `worker` is what runs in each of them, and `crew` hands them tasks. Of videos know `segments`,
which makes tasks of one, `parts`, which does them, and `frames`, which does them with a model for
those who have no command line. docs/many-machines.md describes it.
"""
