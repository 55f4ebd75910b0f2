"""Measures against the budgets: ratios side by side in one run, never a pass or fail of a test."""
