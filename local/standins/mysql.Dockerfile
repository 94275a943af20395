# What the Compose file uses of the official image: settings in /etc/mysql/conf.d, secrets in files, a first start that sets up
# the data, under any user.
ARG sid
FROM $sid
RUN printf '[mysqld]\ndatadir=/var/lib/mysql\nsocket=/run/mysqld/mysqld.sock\npid-file=/run/mysqld/mysqld.pid\n' > /etc/my.cnf \
    && printf '[client]\nsocket=/run/mysqld/mysqld.sock\n!includedir /etc/mysql/conf.d/\n' >> /etc/my.cnf \
    && mkdir -p /etc/mysql/conf.d /docker-entrypoint-initdb.d /var/lib/mysql /run/mysqld \
    && chmod 1777 /var/lib/mysql /run/mysqld
COPY mysql-entrypoint /usr/local/bin/
VOLUME /var/lib/mysql
ENTRYPOINT ["mysql-entrypoint"]
CMD ["mysqld"]
