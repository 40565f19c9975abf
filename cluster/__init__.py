"""Spreads work over the devices of this machine, or of many, by Ray. Optional.

Scheduling, transport, the store of what every worker needs, and new processes for those that died
are Ray's. Nothing here knows of pictures, videos or networks: `connection` starts Ray or joins a
running cluster, `places` says which workers there are, `worker` is what runs in each of them, and
`crew` hands them tasks. docs/many-machines.md describes it.
"""
