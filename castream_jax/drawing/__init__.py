"""Everything that makes pictures, from plain arrays, images and texts: overlays, curves, contact sheets, titles."""
