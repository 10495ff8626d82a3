-- Create the service's role and database. PostgreSQL runs this file when it initializes the volume. The role owns only
-- this database. It isn't a superuser, because a superuser can run programs and read files on the database's machine.
-- 创建服务所用的角色与数据库，由 PostgreSQL 在初始化数据卷时执行。该角色只拥有这个数据库。它不是超级用户，因为超级用户可以在
-- 数据库主机上执行程序、读取文件。
\set password `cat /run/secrets/wxauth_database_password`
CREATE ROLE wxauth LOGIN PASSWORD :'password';
-- Collation C sorts text by its bytes. This order stays the same if you change the image or its C library.
-- C 排序规则按字节排序，更换镜像或 C 库都不影响。
CREATE DATABASE wxauth OWNER wxauth TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C';
