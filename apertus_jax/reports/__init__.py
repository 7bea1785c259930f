"""HTML reports in one file: page, tables, and charts as inline vector graphics, for dark and light, wide and narrow."""
