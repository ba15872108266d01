"""`layercast-bench fanout`: one image to many real nodes at once, over shaped links, beside the physical limits.

plan (what was asked), world and network (where it runs), leftovers and room (what of the machine it takes, and gives
back), site (origin and image), zygote and nodes (the peers), clients and pulling (who asks), watch (what is seen
meanwhile), modes (one run each), command (the whole). Figures go to benchmarks.report; nothing here formats them.
"""
