"""Models and datasets on the Hugging Face Hub: versions, snapshots on this machine, downloads.

Whatever reads a model or rows gets a folder on this machine; only this package asks the Hub.
"""
