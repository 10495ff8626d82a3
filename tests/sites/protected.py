"""Resources that a site can ask a token for, and the scopes of these resources."""

MCP, FILES = "https://mcp.test/mcp", "https://files.test"
RESOURCES = [
    {"resource": MCP, "title": "小店助手", "scopes": {"orders:read": "查看你的订单", "orders:write": "替你下单、退单"}},
    {"resource": FILES, "title": "文件", "scopes": {"orders:read": "读取文件", "files": "管理文件"}},
]
ORDERS = [{"name": "orders:read", "title": "查看你的订单"}, {"name": "orders:write", "title": "替你下单、退单"}]
