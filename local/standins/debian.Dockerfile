ARG bookworm
FROM $bookworm
CMD ["bash"]
