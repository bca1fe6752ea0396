"""Contracts, shipped so that a store or a stage of your own can be held to them: ``backend_contract`` and
``stage_contract``. They need the ``test`` extra (pytest, hypothesis); import the modules by name."""
