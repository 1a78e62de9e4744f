"""Plots: tables and arrays -> figures in one restrained style; know nothing of the other packages.

Names stand in rows and values run to the right, so that a dozen long names still fit a phone.
"""
