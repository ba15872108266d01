"""`layercast-bench fanout`: one image to many real nodes at once, over shaped links, beside the physical limits.

plan (what is asked for), site and network (where it runs), disk_space (what of the machine it takes), origin (registry
and image), zygote and nodes (the peers), clients and pulling (who asks), watch (what is seen meanwhile), modes (one run
each), command (the whole). Figures go to benchmarks.report; nothing here formats them.
"""
