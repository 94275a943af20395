ARG sid
FROM $sid
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
