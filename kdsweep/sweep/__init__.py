"""Sweeps: studies, the driver that runs their trials, and where it all is written."""

from kdsweep.sweep.start import run

__all__ = ["run"]
