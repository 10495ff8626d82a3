-- The role and the database of the service, created with the volume. The role owns this database and is no superuser, who
-- could run programs and read files on the database's machine.
-- 服务所用的角色与数据库，随数据卷创建。该角色只拥有这个数据库，不是超级用户：超级用户可以在数据库主机上执行程序、读取文件。
\set password `cat /run/secrets/wxauth_database_password`
CREATE ROLE wxauth LOGIN PASSWORD :'password';
-- In the order of bytes, which no other image or C library changes. 按字节排序，更换镜像或 C 库都不影响。
CREATE DATABASE wxauth OWNER wxauth TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C';
