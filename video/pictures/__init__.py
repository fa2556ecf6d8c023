"""Picture files: single pictures, folders of pictures, and pictures made from several."""
