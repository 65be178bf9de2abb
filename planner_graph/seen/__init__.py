"""What models see: capabilities in few words, untrusted text marked as data, and the request. Pure text in, text out."""
