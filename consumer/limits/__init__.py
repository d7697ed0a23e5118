"""Keeps the worker within the portal's limits, and stops it while every call would fail."""
