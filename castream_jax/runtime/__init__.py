"""What the process needs: devices, several processes, compiled programs kept on disk, progress, whole files."""
