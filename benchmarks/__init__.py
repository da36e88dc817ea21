"""Side by side with what people would use instead: `run.py` measures, `report.py` writes README.md from the results."""
