"""Preheats: images that are brought to nodes before clients come, as durable jobs.

machine decides, and is pure; resolution asks registries, targets chooses nodes, execution carries out.
"""
