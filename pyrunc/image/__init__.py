"""From an OCI image to a bundle: image layouts, docker archives, registries, layers, the configuration.

Nothing here is imported by a verb that an engine calls often.  ``sources`` finds an image, ``manifest`` chooses and
verifies, ``blobs`` decompresses, ``layer`` and ``tree`` write the root filesystem, ``convert`` writes config.json,
``store`` keeps what was unpacked.
"""
