"""Many HTTP reads at once, for every store that speaks HTTP; knows no store."""
