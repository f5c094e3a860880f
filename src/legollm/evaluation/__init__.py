"""A model goes in, numbers come out: loss and bits per byte (loss.py), baselines to hold them against (baselines.py),
questions with a known answer (questions.py), what heads, blocks and experts do with a text (xray.py), and one page that
shows it all (report.py)."""
