"""Operators and facts about the processor that engines share. Nothing here knows a network."""
