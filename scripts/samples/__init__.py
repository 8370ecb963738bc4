"""What the sample sets of tasks show: scenes, pages, receipts, clips, and a simulated phone and desktop."""
